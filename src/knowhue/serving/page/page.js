// The page. Photos, points and settings exist only in this tab; colours come from the server's API.
import { Card, element, kindOf, titled, trainingSummary } from "./card.js";
import { Refused, post, request } from "./server.js";
import { followStudies } from "./studies.js";
import { downloadZip } from "./vendor/client-zip/index.js";

const PREVIEW_PX = 1280;
const CHOICES = 4; // number of colourings to choose from
const CHOICE_PX = 320; // longest side of each
const MAX_TRIES = 5; // attempts to download while the server is busy
const SUFFIXES = { "image/jpeg": "jpg", "image/png": "png", "image/webp": "webp", "image/tiff": "tif", "image/avif": "avif" };
const SWATCHES = { // frequent colours in old photos
  "#e0b094": "skin", "#7fa9d6": "sky", "#6d8f4e": "leaves", "#2f8f9d": "sea", "#9c6b43": "wood",
  "#b5523b": "brick", "#d9c08a": "sand", "#c83232": "red", "#808080": "no colour",
};

const $ = (selector) => document.querySelector(selector);
const clamp = (value) => Math.min(1, Math.max(0, value));
let models = [], cards = [], photos = [], chosen = null, placement = Promise.resolve();
let setConnected;
const connected = new Promise((resolve) => { setConnected = resolve; }); // resolved when the models are known; photos wait for it

// Requests to the server

const share = (name) => Number($(`#${name} input[type=number]`).value) / 100;

// Options of the API. Strength blends towards gray, so it is a factor like saturation.
function optionsOf(photo, model) {
  const saturation = Math.round(1e4 * share("strength") * share("saturation")) / 1e4;
  const hints = photo.points.map((point) => ["hints", `${placeOf(point)}=${point.colour}`]);
  const sample = model.samples > 1 ? [["sample", photo.sample]] : [];
  const fast = model.sizes > 1 ? [["fast", $("#fast").checked]] : [];
  return [["model", model.name], ["saturation", saturation], ...sample, ...fast, ...hints];
}

const blobOf = (base64, type) => new Blob([Uint8Array.from(atob(base64), (each) => each.charCodeAt(0))], { type });
const imageUrl = ({ image, media_type }) => URL.createObjectURL(blobOf(image, media_type));
// A preview in JPEG, or in PNG if the file may be transparent.
const previewOf = (photo, longest = PREVIEW_PX) => [["max_px", longest], ["format", photo.file.type === "image/jpeg" ? "jpg" : "png"]];

async function colouredBy(model, photo, withUncertainty) {
  if (!model.tasks.includes("colour")) {
    return { answer: await post("v1/classify", photo.file, [["model", model.name]]) };
  }
  const options = [...optionsOf(photo, model), ...previewOf(photo), ["uncertainty", withUncertainty]];
  const answer = await post("v1/colorize", photo.file, options, "application/json", photo.reference);
  const map = answer.uncertainty && await createImageBitmap(blobOf(answer.uncertainty.map, "image/png"));
  return { answer, map, url: imageUrl(answer) };
}

// Small versions of a model's different colourings.
async function choicesOf(model, photo) {
  const numbers = Array.from({ length: model.samples > 1 ? Math.min(CHOICES, model.samples) : 0 }, (_, place) => place + 1);
  const answers = await Promise.all(numbers.map((sample) => {
    const options = [...optionsOf({ ...photo, sample }, model), ...previewOf(photo, CHOICE_PX)];
    return post("v1/colorize", photo.file, options, "application/json", photo.reference);
  }));
  return answers.map(imageUrl);
}

async function updateChoices(photo) {
  const key = settingsOf({ ...photo, sample: 1 });
  if (!photo.isOffered || photo.choicesSettings === key) return;
  // switched off first, so that an error does not repeat the request with every change of settings
  photo.isOffered = false;
  const found = await Promise.all(models.map((model) => choicesOf(model, photo)));
  photo.isOffered = true;
  const old = [...photo.choices.values()].flat();
  photo.choices = new Map(models.map((model, place) => [model.name, found[place]]));
  photo.choicesSettings = key;
  old.forEach((url) => URL.revokeObjectURL(url));
}

async function grayPreview(photo) {
  const model = models.find((each) => each.tasks.includes("colour"));
  if (!model) {
    // the API reads more formats than a browser can show
    const shown = await createImageBitmap(photo.file).catch(() => null);
    const { width, height } = shown ?? { width: 0, height: 0 };
    return { before: shown ? URL.createObjectURL(photo.file) : "", full: { width, height, kind: "" } };
  }
  const options = [["model", model.name], ["saturation", 0], ...previewOf(photo)];
  const answer = await post("v1/colorize", photo.file, options);
  const kind = answer.full.media_type.replace("image/", "").toUpperCase();
  return { before: imageUrl(answer), full: { ...answer.full, kind } };
}

// The options that decide the colours of a photo, for all models.
const allOptionsOf = (photo) => JSON.stringify([optionsOf(photo, { name: "", samples: 2, sizes: 2 }), photo.referenceNumber]);

const settingsOf = (photo) => JSON.stringify([allOptionsOf(photo), photo === chosen && $("#unsure").checked]);

// Request a photo from every model with the current settings; updates run in sequence, so a late answer never replaces a newer one.
function update(photo) {
  photo.pending = (photo.pending ?? Promise.resolve()).catch(() => {}).then(() => updateViews(photo)).then(() => updateChoices(photo));
  return photo.pending;
}

async function updateViews(photo) {
  const key = settingsOf(photo);
  if (photo.shownSettings === key) return;
  const withUncertainty = photo === chosen && $("#unsure").checked;
  if (!photo.full) Object.assign(photo, await grayPreview(photo));
  const found = await Promise.all(models.map((model) => colouredBy(model, photo, withUncertainty)));
  const old = [...photo.views.values()];
  photo.views = new Map(models.map((model, place) => [model.name, found[place]]));
  photo.shownSettings = key;
  old.forEach(({ url }) => url && URL.revokeObjectURL(url));
}

async function colouredFile(model, photo) {
  const options = allOptionsOf(photo);
  for (let tries = 1; ; tries += 1) {
    try {
      const blob = await post("v1/colorize", photo.file, optionsOf(photo, model), "image/*", photo.reference);
      photo.savedOptions = options;
      return { blob, name: `${photo.name.replace(/\.[^.]*$/, "")}-colour.${SUFFIXES[blob.type]}` };
    } catch (error) {
      if (error.status !== 429 || tries === MAX_TRIES) throw error;
      await new Promise((resolve) => { setTimeout(resolve, 1000 * (error.retryAfter || 1)); });
    }
  }
}

// Display

function setStatus(message, problems = []) {
  $("#status").textContent = message;
  $("#status").classList.toggle("busy", message.endsWith("..."));
  $("#alert").textContent = problems.join("\n");
  $("#alert").hidden = !problems.length;
}

// Wrap a function so that calls made while it runs are merged into one call afterwards.
function latest(work) {
  let running = Promise.resolve(), waiting = null;
  return () => {
    waiting ??= running = running.catch(() => {}).then(() => { waiting = null; return work(); });
    return waiting;
  };
}

async function updateChosen(photo) {
  $("#results").setAttribute("aria-busy", true);
  try {
    await update(photo);
  } finally {
    $("#results").removeAttribute("aria-busy");
    if (photo === chosen) show();
  }
}

const recolour = latest(async () => { if (chosen) await updateChosen(chosen); });

const recolourAll = latest(async () => {
  for (const photo of photos) {
    await update(photo);
    showGallery();
  }
});

async function attempt(work, done = "") {
  try {
    await work();
    setStatus(done);
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
    setStatus("", [error.message]);
  }
}

function show() {
  const isEmpty = !chosen;
  document.body.classList.toggle("has-photo", !isEmpty);
  $("#results").hidden = $("#tuning").hidden = isEmpty;
  if (!isEmpty && chosen.views.size) cards.forEach((card) => card.show(chosen));
  showReference();
  showPoints();
  showGallery();
}

function showReference() {
  const file = chosen?.reference, [image, remove] = document.querySelectorAll("#reference img, #reference button");
  image.hidden = remove.hidden = !file;
  URL.revokeObjectURL(image.src);
  if (file) image.src = URL.createObjectURL(file);
  else image.removeAttribute("src");
  image.alt = file ? `Reference ${file.name}` : "";
  const found = chosen && [...chosen.views.values()].map(({ answer }) => answer.found_in_reference).find((each) => each != null);
  $("#reference .found").hidden = found == null;
  $("#reference .found").textContent = found == null ? "" : `${Math.round(100 * found)} % of the photo was found in it.`;
}

function showPoints() {
  const points = chosen?.points ?? [];
  cards.forEach((card) => card.showPoints(points));
  $("#points").replaceChildren(...points.map((point, place) => {
    const dot = element("span", { class: "dot" });
    dot.style.background = point.colour;
    const text = `${point.colour} at ${Math.round(100 * point.x)} %, ${Math.round(100 * point.y)} %`;
    const remove = element("button", { type: "button", class: "quiet", "aria-label": `Remove point ${place + 1}, ${point.colour}` }, "Remove");
    remove.onclick = () => { points.splice(place, 1); showPoints(); attempt(recolour, "Point removed."); };
    return element("li", {}, dot, element("span", {}, text), remove);
  }));
  $("#clear-points").hidden = !points.length;
}

function showGallery() {
  const colouring = models.filter((model) => model.tasks.includes("colour"));
  $("#gallery").hidden = photos.length < 2;
  $("#gallery ul").replaceChildren(...photos.map((photo) => thumb(photo, colouring[0]))); // the API's default model
  $(".zips").replaceChildren(...colouring.map((model) => {
    const which = colouring.length > 1 ? `, ${model.isNamed ? model.title : model.title.toLowerCase()}` : "";
    const button = element("button", { type: "button", class: "quiet" }, `All ${photos.length} as ZIP${which}`);
    button.onclick = () => attempt(() => saveAll(model), "Saved.");
    return button;
  }));
}

function thumb(photo, model) {
  const source = photo.views.get(model?.name)?.url ?? photo.before;
  const open = element("button", { type: "button", class: "thumb", "aria-pressed": photo === chosen, "aria-label": `Show ${photo.name}` },
    element("img", { src: source, alt: "" }));
  open.onclick = () => selectPhoto(photo);
  const remove = element("button", { type: "button", class: "remove", "aria-label": `Remove ${photo.name}`, title: "Remove" }, "×");
  remove.onclick = () => removePhoto(photo);
  return element("li", {}, open, remove);
}

// Actions of the user

async function addPhotos(files, isExample = false) {
  await connected;
  const problems = [];
  let first = null, count = 0;
  for (const file of files) {
    const photo = { file, name: file.name, points: [], reference: null, referenceNumber: 0, sample: 1, choices: new Map(), views: new Map() };
    setStatus(`Colouring ${file.name} ...`, problems);
    try {
      await update(photo);
    } catch (error) {
      const message = error instanceof Refused ? error.message : "this browser cannot show it.";
      // the server names the form field, not the file; a function, because a $ in the name would be a pattern
      problems.push(message.startsWith("`image`") ? message.replace("`image`", () => file.name) : `${file.name}: ${message.replace(/^image: /, "")}`);
      continue;
    }
    count += 1;
    photos.push(photo);
    if (isExample) photo.savedOptions = allOptionsOf(photo);
    if (!first) chosen = first = photo;
    show();
  }
  setStatus(count ? `${count} photo${count === 1 ? "" : "s"} coloured.` : "", problems);
  if (chosen && chosen.shownSettings !== settingsOf(chosen)) await attempt(recolour);
}

async function addExample(name) {
  let blob = null;
  await attempt(async () => { blob = await request(`page/examples/${name}`, "blob"); });
  if (blob) await addPhotos([new File([blob], name, { type: "image/jpeg" })], true);
}

function selectPhoto(photo) {
  chosen = photo;
  show();
  return attempt(recolour);
}

function removePhoto(photo) {
  const urls = [photo.before, ...[...photo.views.values()].map(({ url }) => url), ...[...photo.choices.values()].flat()];
  urls.forEach((url) => url && URL.revokeObjectURL(url));
  photos = photos.filter((each) => each !== photo);
  if (chosen === photo) chosen = photos.at(-1) ?? null;
  show();
  return attempt(recolour, "Photo removed.");
}

// Points are sent one after the other, so that only a point that is refused is removed.
function place(x, y) {
  const photo = chosen, point = { x: clamp(x), y: clamp(y), colour: $("#point-colour").value };
  placement = placement.then(() => addPoint(photo, point));
  return placement;
}

// Request the photo with the current settings, and undo the change if it is refused.
function attemptOrUndo(photo, undo, done) {
  return attempt(() => updateChosen(photo).catch((error) => { undo(); throw error; }), done);
}

const placeOf = ({ x, y }) => `${(100 * x).toFixed(2)}%,${(100 * y).toFixed(2)}%`;

async function addPoint(photo, point) {
  // a new point replaces one at the same place
  const replaced = photo.points.find((each) => placeOf(each) === placeOf(point));
  const put = (old, now) => { photo.points = photo.points.flatMap((each) => (each === old ? now : each)); showPoints(); };
  if (!replaced) photo.points.push(point);
  put(replaced, point);
  await attemptOrUndo(photo, () => put(point, replaced ?? []), `Point ${photo.points.indexOf(point) + 1} placed.`);
}

let references = 0;

// A refused reference is removed again, and the previous one is kept.
async function setReference(file) {
  const photo = chosen, before = [photo.reference, photo.referenceNumber];
  [photo.reference, photo.referenceNumber] = [file, file ? references += 1 : 0];
  await attemptOrUndo(photo, () => {
    [photo.reference, photo.referenceNumber] = before;
    show();
  }, file ? "Reference added." : "Reference removed.");
}

function save(blob, name) {
  const link = element("a", { href: URL.createObjectURL(blob), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

async function saveAll(model) {
  const names = new Set(), files = [];
  for (const [place, photo] of photos.entries()) {
    setStatus(`Colouring ${place + 1} of ${photos.length} ...`);
    const { blob, name } = await colouredFile(model, photo);
    let unused = name;
    for (let number = 2; names.has(unused); number += 1) unused = name.replace(/(\.[^.]*)$/, `-${number}$1`);
    names.add(unused);
    files.push({ input: blob, name: unused, lastModified: new Date() });
  }
  save(await downloadZip(files).blob(), "knowhue-photos.zip");
}

// The browser asks before the page is left with photos that were not downloaded, other than examples.
function onLeaving() {
  addEventListener("beforeunload", (event) => {
    const canBeSaved = models.some((model) => model.tasks.includes("colour"));
    if (canBeSaved && photos.some((photo) => photo.savedOptions !== allOptionsOf(photo))) event.preventDefault();
  });
}

// Comparing and placing points

function split(value) {
  $("#cards").style.setProperty("--at", `${value}%`);
  document.querySelectorAll(".split").forEach((each) => { each.value = value; });
}

function setMode(mode) {
  document.body.dataset.mode = mode;
  $("#point-mode").setAttribute("aria-pressed", mode === "points");
  $("#point-mode").textContent = mode === "points" ? "Done" : "Place points";
}

// If the button was used by keyboard or screen reader (`detail` is 0), move the focus to the cross.
function startPoints({ detail }) {
  setMode("points");
  if (!detail) [...document.querySelectorAll(".aim")].find((each) => each.offsetParent)?.focus();
}

function onAim(surface) {
  const cross = surface.querySelector(".cross");
  let x = 0.5, y = 0.5;
  surface.addEventListener("click", (event) => {
    const box = surface.getBoundingClientRect();
    place((event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height);
  });
  surface.addEventListener("keydown", (event) => {
    const step = event.shiftKey ? 0.1 : 0.02;
    const steps = { ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, -step], ArrowDown: [0, step] };
    if (event.key in steps) {
      [x, y] = [clamp(x + steps[event.key][0]), clamp(y + steps[event.key][1])];
      cross.style.left = `${100 * x}%`;
      cross.style.top = `${100 * y}%`;
    } else if (event.key === "Enter" || event.key === " ") place(x, y);
    else if (event.key === "Escape") { setMode("compare"); $("#point-mode").focus(); }
    else return;
    event.preventDefault();
  });
}

function onSlider(root) {
  const [number, range] = root.querySelectorAll("input");
  const copy = (from, to) => () => {
    const value = from.value === "" ? to.value : Math.round(from.value); // an invalid number keeps the old value
    to.value = from.value = Math.min(from.max, Math.max(from.min, value));
    attempt(recolour);
  };
  range.addEventListener("input", copy(range, number));
  number.addEventListener("change", copy(number, range));
  for (const each of [number, range]) each.addEventListener("change", () => attempt(recolourAll));
}

function onFiles() {
  $("#photos").addEventListener("change", async ({ target }) => {
    const files = [...target.files];
    target.value = "";
    await addPhotos(files);
  });
  for (const button of document.querySelectorAll("#examples button")) button.onclick = () => addExample(button.dataset.name);
  document.addEventListener("paste", (event) => {
    const files = [...(event.clipboardData?.files ?? [])];
    if (!files.length) return;
    event.preventDefault();
    addPhotos(files);
  });
  document.addEventListener("dragover", (event) => { event.preventDefault(); document.body.dataset.drag = "over"; });
  document.addEventListener("dragleave", (event) => { if (!event.relatedTarget) delete document.body.dataset.drag; });
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    delete document.body.dataset.drag;
    const files = [...(event.dataTransfer?.files ?? [])];
    if (!files.length) return; // text or a link was dropped
    if (chosen && event.target.closest?.("#reference")) setReference(files[0]);
    else addPhotos(files);
  });
  $("#reference-file").addEventListener("change", ({ target }) => {
    const [file] = target.files;
    target.value = "";
    if (file) setReference(file);
  });
  $("#reference button").onclick = () => setReference(null);
}

function onPoints() {
  $("#swatches").append(...Object.entries(SWATCHES).map(([colour, name]) => {
    const swatch = element("button", { type: "button", class: "swatch", "aria-label": name, title: name });
    swatch.style.background = colour;
    swatch.onclick = (event) => { $("#point-colour").value = colour; startPoints(event); };
    return swatch;
  }));
  $("#point-colour").onchange = () => setMode("points");
  $("#point-mode").onclick = (event) => (document.body.dataset.mode === "points" ? setMode("compare") : startPoints(event));
  $("#clear-points").onclick = () => { chosen.points = []; showPoints(); attempt(recolour, "Points removed."); };
}

function onTabs(whenShown) {
  const tabs = [...document.querySelectorAll("[role=tab]")];
  const named = () => tabs.find((tab) => location.hash === `#${tab.getAttribute("aria-controls")}`) ?? tabs[0];
  // the address names the view, for the back button, reloading and sharing
  const open = (tab) => {
    if (tab === named()) return;
    history.pushState(null, "", tab === tabs[0] ? location.pathname + location.search : `#${tab.getAttribute("aria-controls")}`);
    showNamed();
  };
  const showNamed = () => {
    const tab = named();
    for (const each of tabs) {
      each.setAttribute("aria-selected", each === tab);
      each.tabIndex = each === tab ? 0 : -1;
      document.getElementById(each.getAttribute("aria-controls")).hidden = each !== tab;
    }
    whenShown();
  };
  tabs.forEach((tab, place) => {
    tab.onclick = () => open(tab);
    tab.onkeydown = ({ key }) => {
      if (key !== "ArrowLeft" && key !== "ArrowRight") return;
      const next = tabs[(place + 1) % tabs.length];
      next.focus();
      open(next);
    };
  });
  showNamed();
  addEventListener("popstate", showNamed);
}

function summary() {
  if (new Set(models.map((model) => kindOf(model)[1])).size === 1) return ["Colours are predicted from lightness, and so is the class if the model learned classes."];
  return ["The same photo, coloured by a model that learned ", element("span", { class: "single" }, "colours alone"), " and by one that learned ",
    element("span", { class: "multi" }, "colours and classes together"), "."];
}

function start() {
  setMode("compare");
  onPoints();
  onFiles();
  onLeaving();
  document.querySelectorAll(".slider").forEach(onSlider);
  $("#unsure").onchange = () => attempt(recolour);
  $("#fast").onchange = () => { for (const each of [recolour, recolourAll]) attempt(each); };
  $("#theme").onclick = () => {
    const root = document.documentElement, isDark = getComputedStyle(root).colorScheme === "dark"
      || (root.dataset.theme === undefined && matchMedia("(prefers-color-scheme: dark)").matches);
    root.dataset.theme = isDark ? "light" : "dark";
  };
  onTabs(followStudies($("#panel")));
  connect();
}

async function connect() {
  await attempt(async () => { models = titled(await request("v1/models", "json")); });
  if (!models.length) {
    const again = element("button", { type: "button", class: "quiet" }, "Try again");
    again.onclick = () => { again.disabled = true; connect(); }; // a second click would add all cards twice
    $("#alert").append(" ", again);
    return;
  }
  $("#speed").hidden = models.every((model) => model.sizes < 2);
  $("#lead").append(...summary(), " ", trainingSummary(models));
  cards = models.map((model, number) => new Card(model, number));
  for (const card of cards) {
    card.find(".split").addEventListener("input", ({ target }) => split(target.value));
    card.find(".download").onclick = () => attempt(async () => {
      const { blob, name } = await colouredFile(card.model, chosen);
      save(blob, name);
    }, "Saved.");
    card.find(".offer").onclick = () => { chosen.isOffered = true; attempt(recolour, "Choose one of the colourings."); };
    card.choose = (number) => { chosen.sample = number; attempt(recolour, `Colouring ${number} is shown.`); };
    onAim(card.find(".aim"));
  }
  $("#cards").append(...cards.map((card) => card.root));
  split(50);
  document.body.dataset.ready = "yes";
  setConnected();
}

start();
