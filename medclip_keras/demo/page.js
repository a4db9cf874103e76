"use strict";

const byId = (id) => document.getElementById(id);
const lines = (id) => byId(id).value.split("\n").map((line) => line.trim()).filter(Boolean);
let setting = null;
let picture = null; // a Blob
let asked = 0; // number of the last question; answers to older ones are dropped

function say(text, bad = false) {
  byId("status").textContent = text;
  byId("status").classList.toggle("bad", bad);
}

async function post(path, question) {
  const body = new Blob([JSON.stringify(question), "\n", picture]);
  let response;
  try {
    response = await fetch(path, { method: "POST", body, headers: { "Content-Type": "application/octet-stream" } });
  } catch {
    throw new Error("The server does not answer. Is it still running?");
  }
  const answer = await response.json();
  if (!response.ok) throw new Error(answer.error);
  return answer;
}

function showRows(rows) {
  byId("rows").replaceChildren(...rows.map((row) => {
    const line = document.createElement("tr");
    const button = document.createElement("button");
    const bar = document.createElement("progress");
    button.type = "button";
    button.textContent = row.sentence;
    button.setAttribute("aria-pressed", "false");
    button.addEventListener("click", () => showRegions(row.sentence, button));
    bar.value = row.share;
    bar.setAttribute("aria-hidden", "true");
    for (const content of [[button, bar], [row.cosine.toFixed(3)], [rows.length > 1 ? row.share.toFixed(2) : "–"]]) {
      const cell = document.createElement("td");
      cell.append(...content);
      line.append(cell);
    }
    return line;
  }));
  byId("answer").hidden = false;
}

function showNearest(rows) {
  byId("near").hidden = rows.length === 0;
  byId("nearest").replaceChildren(...rows.map((row) => {
    const item = document.createElement("li");
    const score = document.createElement("span");
    score.textContent = row.score.toFixed(3);
    item.append(score, row.name);
    return item;
  }));
}

function clearRegions() {
  byId("map").hidden = byId("scale").hidden = true;
  byId("caption").textContent = "The picture as the model sees it.";
}

async function ask() {
  if (!picture) return;
  const number = ++asked;
  say("Comparing …");
  clearRegions();
  try {
    const answer = await post("answer", { sentences: lines("sentences"), without: lines("without") });
    if (number !== asked) return;
    byId("shown").src = answer.picture;
    byId("seen").hidden = false;
    showRows(answer.sentences);
    showNearest(answer.nearest);
    say("");
  } catch (error) {
    if (number !== asked) return;
    byId("answer").hidden = byId("near").hidden = byId("seen").hidden = true;
    say(error.message, true);
  }
}

async function showRegions(sentence, button) {
  const number = ++asked;
  say("Hiding one region after the other …");
  for (const other of byId("rows").querySelectorAll("button")) other.setAttribute("aria-pressed", String(other === button));
  try {
    const answer = await post("regions", { sentences: [sentence] });
    if (number !== asked) return;
    drawMap(answer.regions);
    const largest = Math.max(...answer.regions.flat());
    byId("caption").textContent = `${sentence} Hiding a region lowers its similarity by at most ${largest.toFixed(3)}.`;
    byId("seen").scrollIntoView({ block: "nearest" });
    say("");
  } catch (error) {
    if (number === asked) say(error.message, true);
  }
}

function drawMap(regions) {
  const map = byId("map");
  const side = regions.length;
  map.width = map.height = side;
  const pixels = new ImageData(side, side);
  const largest = Math.max(...regions.flat().map(Math.abs), 1e-9);
  const style = getComputedStyle(document.documentElement);
  const colours = ["--warm", "--cool"].map((name) => style.getPropertyValue(name).split(",").map(Number));
  regions.flat().forEach((value, cell) => {
    pixels.data.set([...colours[value > 0 ? 0 : 1], Math.round(180 * Math.abs(value) / largest)], 4 * cell);
  });
  map.getContext("2d").putImageData(pixels, 0, 0);
  map.hidden = byId("scale").hidden = false;
}

function choose(blob, button = null) {
  if (blob.size > setting.max_bytes) {
    say(`A picture may have at most ${Math.floor(setting.max_bytes / 2 ** 20)} MiB.`, true);
    return;
  }
  picture = blob;
  for (const other of byId("examples").children) other.classList.toggle("chosen", other === button);
  byId("ask").disabled = false;
  ask();
}

function showExamples(names) {
  names.forEach((name, number) => {
    const button = document.createElement("button");
    const image = document.createElement("img");
    const text = document.createElement("span");
    button.type = "button";
    image.src = `examples/${number}.png`;
    image.alt = "";
    text.textContent = name;
    button.append(image, text);
    button.addEventListener("click", async () => choose(await (await fetch(image.src)).blob(), button));
    byId("examples").append(button);
  });
}

function listen() {
  const drop = byId("drop");
  for (const kind of ["dragenter", "dragover"]) {
    drop.addEventListener(kind, (event) => { event.preventDefault(); drop.classList.add("over"); });
  }
  for (const kind of ["dragleave", "drop"]) drop.addEventListener(kind, () => drop.classList.remove("over"));
  drop.addEventListener("drop", (event) => {
    event.preventDefault();
    if (event.dataTransfer.files.length) choose(event.dataTransfer.files[0]);
  });
  byId("file").addEventListener("change", (event) => {
    if (event.target.files.length) choose(event.target.files[0]);
    event.target.value = ""; // the same file may be chosen again
  });
  byId("ask").addEventListener("click", ask);
}

async function start() {
  setting = await (await fetch("setting")).json();
  byId("run").textContent = setting.run;
  byId("sentences").value = setting.sentences.join("\n");
  byId("avoid").hidden = !setting.index;
  showExamples(setting.examples);
  listen();
}

start();
