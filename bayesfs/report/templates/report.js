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
  let opened = [];
  addEventListener("beforeprint", () => {
    opened = [...document.querySelectorAll("details.data:not(.long):not([open]), details.task:not([open])")];
    opened.forEach((d) => { d.open = true; });
  });
  addEventListener("afterprint", () => opened.forEach((d) => { d.open = false; }));
})();
