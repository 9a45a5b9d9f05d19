"""What is scored: held-out users, ORBIT's tasks, few-shot episodes; comparisons."""
