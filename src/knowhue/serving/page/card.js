// The card of a model: the photo before and after, its class, and warnings.

const MAX_CLASSES = 5;
const MAX_LIST_LENGTH = 120;
const HATCH_PX = 4;
const STILL_GRAY = 4; // mean chroma in CIELAB units, below which a photo looks gray
const MAP_CODES = 5; // levels of the API's map per CIELAB unit
const MAP_MAX = 51; // CIELAB units, the largest value of the map
const KINDS = {
  "colour,class": ["Multi-task", "multi", "learned colours and classes together"],
  colour: ["Single-task", "single", "learned colours alone"],
  class: ["Single-task", "single", "learned classes alone"],
};

export const element = (tag, attributes = {}, ...children) => {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
};

// The name of a class, which is a folder name, as words.
export const spaced = (name) => name.replaceAll("_", " ");

export const kindOf = (model) => KINDS[["colour", "class"].filter((task) => model.tasks.includes(task))];

// Add a title to each model: its kind if no other model has the same, else its name.
export function titled(models) {
  const kinds = models.map((model) => kindOf(model)[0]);
  return models.map((model, place) => {
    const isUnique = models.length > 1 && kinds.filter((kind) => kind === kinds[place]).length === 1;
    return { ...model, title: isUnique ? kinds[place] : model.name, isNamed: !isUnique };
  });
}

// What the models were trained on, shown before anything is uploaded; for each model if they differ.
export function trainingSummary(models) {
  const learned = models.map(({ trained_on, classes }) => {
    const what = trained_on.source === "drawn" ? "drawn scenes" : "images";
    const list = classes.map(spaced).join(", "), count = trained_on.images?.toLocaleString("en") ?? "an unknown number of";
    return `${count} ${what}${list && list.length <= MAX_LIST_LENGTH ? ` of ${list}` : ""}`;
  });
  const rest = (whose) => `${whose} answers for anything else are guesses.`;
  if (new Set(learned).size === 1) {
    const isOne = models.length === 1;
    return `${isOne ? "The model was" : "The models were"} trained on ${learned[0]}; ${rest(isOne ? "its" : "their")}`;
  }
  return models.map(({ title, isNamed }, place) =>
    `The ${isNamed ? `model “${title}”` : `${title.toLowerCase()} model`} was trained on ${learned[place]}; ${rest("its")}`).join(" ");
}

// A probability as text, never 0 % or 100 %.
export function percent(share) {
  if (share >= 0.995) return "> 99 %";
  return share < 0.01 ? "< 1 %" : `${Math.round(100 * share)} %`;
}

const sentence = (text) => `${text[0].toUpperCase()}${text.slice(1)}.`;

export class Card {
  constructor(model, number) {
    this.model = model;
    const [, kind, training] = kindOf(model);
    this.root = document.getElementById("card").content.firstElementChild.cloneNode(true);
    this.find = (selector) => this.root.querySelector(selector);
    this.root.classList.add(kind);
    this.root.setAttribute("aria-labelledby", `card-${number}`);
    this.find("h2").id = `card-${number}`;
    this.find("h2").textContent = model.title;
    this.find("header p").textContent = this.training = training;
    this.find(".split").setAttribute("aria-label", `${model.title}: boundary between gray, left, and colours, right`);
    this.find(".aim").setAttribute("aria-label",
      `${model.title}: place a colour point. Arrow keys move the cross, Enter places the colour.`);
    this.find("footer").hidden = !model.tasks.includes("colour");
  }

  show(photo) {
    const { answer, url } = photo.views.get(this.model.name);
    const { width, height } = photo.full;
    this.find(".frame").hidden = !photo.before;
    if (photo.before) this.root.style.setProperty("--ratio", width / height);
    this.find(".before").src = photo.before;
    this.find(".before").alt = `${photo.name} in gray`;
    this.find(".after").src = url ?? photo.before;
    this.find(".after").alt = `${photo.name}, coloured by the ${this.model.title} model`;
    this.find(".download span").textContent = `${width} × ${height} ${photo.full.kind}`;
    this.find("header p").textContent = this.training + (answer.fast ? "; fast: predicted at one size" : "");
    this.find(".warnings").replaceChildren(...answer.warnings.map((each) => element("li", {}, sentence(each))));
    this.showClasses(answer);
    this.showSpread(photo.views.get(this.model.name));
    this.showChoices(photo);
  }

  // Show colourings to choose from; unchanged images are kept, and so is the focus.
  showChoices(photo) {
    const urls = photo.choices.get(this.model.name) ?? [], list = this.find(".choices"), offer = this.find(".offer");
    const hadFocus = document.activeElement === offer;
    offer.hidden = this.model.samples < 2 || urls.length > 0;
    list.hidden = !urls.length;
    if (this.choices !== urls) {
      this.choices = urls;
      list.replaceChildren(...urls.map((url, place) => {
        const button = element("button", { type: "button", class: "thumb", "aria-label": `Colouring ${place + 1}` },
          element("img", { src: url, alt: "" }));
        button.onclick = () => this.choose(place + 1);
        return element("li", {}, button);
      }));
      if (hadFocus) list.querySelector("button")?.focus(); // the pressed button is hidden now
    }
    list.querySelectorAll("button").forEach((button, place) => button.setAttribute("aria-pressed", place + 1 === photo.sample));
  }

  showPoints(points) {
    this.find(".pins").replaceChildren(...points.map((point) => {
      const pin = element("li");
      pin.style.left = `${100 * point.x}%`;
      pin.style.top = `${100 * point.y}%`;
      pin.style.background = point.colour;
      return pin;
    }));
  }

  showClasses({ label, novelty, probabilities }) {
    const isNovel = label !== null && !(novelty <= 1);
    const none = this.find(".none"), table = this.find(".classes");
    none.hidden = label !== null && !isNovel;
    table.hidden = !none.hidden;
    none.textContent = isNovel ? "Class unknown." : "No class: this model was not trained on classes.";
    if (table.hidden) return;
    const best = label === "unknown" ? ["Not sure what it sees"] : ["Sees ", element("b", {}, spaced(label))];
    table.caption.replaceChildren(...best);
    table.tBodies[0].replaceChildren(...Object.entries(probabilities).slice(0, MAX_CLASSES).map(([name, share]) => {
      const bar = element("span");
      bar.style.width = `max(1px, ${100 * share}%)`;
      return element("tr", {}, element("th", { scope: "row" }, spaced(name)),
        element("td", { class: "bar", "aria-hidden": "true" }, bar), element("td", {}, percent(share)));
    }));
  }

  // Draw the uncertainty and explain it; few hatches must not look like certainty.
  showSpread({ answer, map }) {
    const canvas = this.find("canvas"), note = this.find(".spread");
    canvas.hidden = note.hidden = !map;
    if (!map) return;
    const most = hatch(canvas, map);
    const units = `${most < MAP_MAX ? "" : "more than "}${Math.floor(most)} CIELAB units`;
    if (this.model.samples > 1) { // it predicts how likely each colour is
      note.textContent = `Where the model is least sure, the colours that it finds possible differ by ${units} from the one shown, on average.`;
      return;
    }
    const stayedGray = answer.chroma < STILL_GRAY
      ? " The photo stayed nearly gray, so few hatches do not mean that the model is sure." : "";
    note.textContent = `Where the model is least sure, its answers for the photo mirrored and enlarged differ by ${units}.${stayedGray}`;
  }
}

// Draw a map of uncertainty as hatching in black and white, visible on any colour; returns the largest value in CIELAB units.
export function hatch(canvas, map) {
  canvas.width = map.width;
  canvas.height = map.height;
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(map, 0, 0);
  const drawn = context.getImageData(0, 0, map.width, map.height), pixels = drawn.data;
  const dash = Math.max(1, Math.round((HATCH_PX * map.width) / (canvas.clientWidth || map.width)));
  let most = 0;
  for (let place = 0; place < pixels.length; place += 4) {
    const units = pixels[place] / MAP_CODES;
    most = Math.max(most, units);
    const column = (place / 4) % map.width, row = Math.floor(place / 4 / map.width);
    const stripe = Math.floor((column + row) / dash) % 6; // one black, one white, four empty
    pixels.fill(stripe === 0 ? 0 : 255, place, place + 3);
    pixels[place + 3] = stripe > 1 ? 0 : Math.round(230 * (units / MAP_MAX) ** 1.5); // small values stay pale
  }
  context.putImageData(drawn, 0, 0);
  return most;
}
