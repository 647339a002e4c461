// What the page does in the browser: the divider, points, paste and drop. `element` and `trigger` come from gradio.
const clamp = (value) => Math.min(1, Math.max(0, value));
const bench = () => document.getElementById("bench");  // gradio keeps styles within its own container
const setMode = (mode) => {
  bench().dataset.mode = mode;
  const button = document.getElementById("point-mode");
  if (!button) return;
  button.setAttribute("aria-pressed", mode === "points");
  button.textContent = mode === "points" ? "Done placing points" : "Place points";
};
const split = (value) => {
  element.style.setProperty("--at", `${value}%`);
  element.querySelectorAll(".split").forEach((each) => { each.value = value; });
};
const place = (x, y) => {
  const colour = document.getElementById("point-colour").value;
  trigger("select", { x: clamp(x), y: clamp(y), colour });
};
const aim = (cross, x, y) => {
  cross.style.setProperty("--x", `${100 * clamp(x)}%`);
  cross.style.setProperty("--y", `${100 * clamp(y)}%`);
  cross.dataset.x = clamp(x);
  cross.dataset.y = clamp(y);
};

split(50);
setMode(bench().dataset.mode ?? "compare");
element.addEventListener("input", (event) => {
  if (event.target.matches(".split")) split(event.target.value);
});
element.addEventListener("click", (event) => {
  const surface = event.target.closest(".aim");
  if (!surface || bench().dataset.mode !== "points") return;
  const box = surface.getBoundingClientRect();
  place((event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height);
});
element.addEventListener("keydown", (event) => {
  const surface = event.target.closest(".aim");
  if (!surface) return;
  const cross = surface.querySelector(".cross");
  const x = Number(cross.dataset.x ?? 0.5), y = Number(cross.dataset.y ?? 0.5);
  const step = event.shiftKey ? 0.1 : 0.02;
  const ways = { ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, -step], ArrowDown: [0, step] };
  if (event.key in ways) aim(cross, x + ways[event.key][0], y + ways[event.key][1]);
  else if (event.key === "Enter" || event.key === " ") place(x, y);
  else if (event.key === "Escape") setMode("compare");
  else return;
  event.preventDefault();
});

if (!window.knowhueListens) {  // gradio may make the element anew; the document stays
  window.knowhueListens = true;
  document.addEventListener("click", (event) => {
    const swatch = event.target.closest(".swatch");
    if (swatch) document.getElementById("point-colour").value = swatch.dataset.colour;
    if (swatch) setMode("points");
    if (event.target.closest("#point-mode")) {
      setMode(bench().dataset.mode === "points" ? "compare" : "points");
    }
    if (event.target.closest("#theme")) document.body.classList.toggle("dark");
  });
  document.addEventListener("change", (event) => {
    if (event.target.id === "point-colour") setMode("points");
  });

  const choose = (files) => {
    const input = document.querySelector("#photos input[type=file]");
    if (!input || !files.length) return;
    const transfer = new DataTransfer();
    for (const file of files) transfer.items.add(file);
    input.files = transfer.files;
    input.dispatchEvent(new Event("change", { bubbles: true }));
  };
  document.addEventListener("paste", (event) => {
    const files = [...(event.clipboardData?.files ?? [])];
    if (!files.length) return;
    event.preventDefault();
    choose(files);
  });
  document.addEventListener("dragover", (event) => { event.preventDefault(); bench().dataset.drag = "over"; });
  document.addEventListener("dragleave", (event) => { if (!event.relatedTarget) delete bench().dataset.drag; });
  document.addEventListener("drop", (event) => {
    delete bench().dataset.drag;
    if (event.target.closest?.("#photos")) return;
    event.preventDefault();
    choose([...(event.dataTransfer?.files ?? [])]);
  });
}
