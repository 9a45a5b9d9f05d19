/* Hovering a video, or moving the keyboard focus to it, shows what it holds beside the list. */
(() => {
  document.documentElement.classList.add("js");
  const copy = (nodes) => [...nodes].map((node) => node.cloneNode(true));
  const paragraph = (nodes, name) => {
    const p = document.createElement("p");
    p.className = name;
    p.append(...copy(nodes));
    return p;
  };
  const show = (event) => {
    const video = event.target.closest && event.target.closest(".v");
    const beside = video && video.closest(".with-preview");
    if (!beside) return;
    const panel = video.querySelector(".p");
    const title = paragraph([video.querySelector(".object")], "mark");
    const rest = panel
      ? copy(panel.childNodes)
      : [paragraph([video.querySelector(".said")], ""), paragraph([video.querySelector("svg")], "band")];
    beside.querySelector(".preview").replaceChildren(title, ...rest);
  };
  document.addEventListener("pointerover", show);
  document.addEventListener("focusin", show);
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape") document.querySelectorAll(".preview").forEach((p) => p.replaceChildren());
  });
  /* A button on each figure's numbers: it plays them, the arrows step, and each row is said. */
  let audio;
  const tone = (height) => {
    audio ||= new AudioContext();
    const sound = audio.createOscillator();
    const loud = audio.createGain();
    sound.frequency.value = 220 * 2 ** (2 * height);
    loud.gain.setValueAtTime(0.15, audio.currentTime);
    loud.gain.linearRampToValueAtTime(0, audio.currentTime + 0.18);
    sound.connect(loud).connect(audio.destination);
    sound.start();
    sound.stop(audio.currentTime + 0.2);
  };
  document.querySelectorAll("details.hear").forEach((data) => {
    const rows = [...data.querySelectorAll("tbody tr")];
    const heads = [...data.querySelectorAll("thead th")].map((head) => head.textContent);
    const heard = rows.map((row) => Number(row.cells[1].textContent.replace("−", "-")));
    const known = heard.filter((value) => !Number.isNaN(value));
    const low = Math.min(...known);
    const span = Math.max(...known) - low || 1;
    const button = document.createElement("button");
    const said = document.createElement("output");
    button.type = "button";
    button.textContent = `Hear: ${data.querySelector("summary").textContent.replace("Numbers: ", "")}`;
    let at = -1;
    let timer;
    const step = (to) => {
      at = Math.max(0, Math.min(rows.length - 1, to));
      rows.forEach((row, i) => row.classList.toggle("now", i === at));
      if (!Number.isNaN(heard[at])) tone((heard[at] - low) / span);
    };
    const say = () => {
      said.textContent = [...rows[at].cells].map((cell, i) => `${heads[i]} ${cell.textContent}`).join(", ");
    };
    const stop = () => clearInterval(timer);
    button.addEventListener("click", () => {
      stop();
      at = -1;
      timer = setInterval(() => (at < rows.length - 1 ? step(at + 1) : stop()), 220);
    });
    button.addEventListener("keydown", (event) => {
      const move = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
      if (event.key === "Escape") stop();
      if (!move) return;
      event.preventDefault();
      stop();
      step(at + move);
      say();
    });
    data.append(button, said);
  });
  let opened = [];
  addEventListener("beforeprint", () => {
    opened = [...document.querySelectorAll("details.data:not(.long):not([open]), details.task:not([open])")];
    opened.forEach((d) => { d.open = true; });
  });
  addEventListener("afterprint", () => opened.forEach((d) => { d.open = false; }));
})();
