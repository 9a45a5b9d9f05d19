"""What is said of one video: answer, reasons, and one piece of advice."""
