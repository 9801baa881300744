// The page works without this file; it adds the live filter, the viewer and the keys.
"use strict";

const hits = [...document.querySelectorAll(".hits li")];
const visible = () => hits.filter((hit) => !hit.hidden);
const link = (hit) => hit.querySelector(".open");

const lowest = document.getElementById("lowest");
function filter() {
  document.getElementById("lowest-shown").value = Number(lowest.value).toFixed(3);
  for (const hit of hits) hit.hidden = Number(hit.dataset.score) < Number(lowest.value);
  document.getElementById("count").textContent = visible().length;
  document.getElementById("none").hidden = visible().length > 0;
}
if (lowest) {
  document.getElementById("filter").hidden = false;
  lowest.addEventListener("input", filter);
  filter();
}

const image = document.getElementById("image");
document.getElementById("send-image").hidden = true;
image.addEventListener("change", () => {
  const large = image.files.length && image.files[0].size > Number(image.dataset.most);
  image.setCustomValidity(large ? "This image is larger than 32 MB" : "");
  if (image.form.reportValidity() && image.files.length) image.form.submit();
});

const viewer = document.getElementById("viewer");
let at = -1;
function show(number) {
  const photos = visible();
  if (number < 0 || number >= photos.length) return;
  at = number;
  const hit = photos[at];
  const full = document.getElementById("full");
  full.src = link(hit).href;
  full.alt = hit.querySelector("img").alt;
  const score = hit.querySelector(".score").textContent;
  document.getElementById("caption").textContent = `${score} · ${link(hit).title}`;
  document.getElementById("before").disabled = at === 0;
  document.getElementById("after").disabled = at === photos.length - 1;
  if (!viewer.open) viewer.showModal();
}
for (const hit of hits) {
  link(hit).addEventListener("click", (event) => {
    if (event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    show(visible().indexOf(hit));
  });
}
document.getElementById("before").addEventListener("click", () => show(at - 1));
document.getElementById("after").addEventListener("click", () => show(at + 1));
document.getElementById("close").addEventListener("click", () => viewer.close());
viewer.addEventListener("click", (event) => event.target === viewer && viewer.close());
viewer.addEventListener("close", () => {
  const hit = visible()[at];
  if (hit && !document.activeElement.matches("input")) link(hit).focus();
});

function steps(photos) {
  const top = (hit) => hit.getBoundingClientRect().top;
  const columns = photos.filter((hit) => top(hit) === top(photos[0])).length;
  return { ArrowRight: 1, ArrowLeft: -1, ArrowDown: columns, ArrowUp: -columns };
}
document.addEventListener("keydown", (event) => {
  if (event.altKey || event.ctrlKey || event.metaKey) return;
  const typing = event.target.matches("input");
  if (viewer.open) {
    if (event.key === "ArrowRight") show(at + 1);
    if (event.key === "ArrowLeft") show(at - 1);
  } else if (event.key === "/" && !typing) {
    event.preventDefault();
    document.getElementById("query").select();
  } else if (event.key.startsWith("Arrow") && !typing) {
    const photos = visible();
    const from = photos.findIndex((hit) => link(hit) === document.activeElement);
    const to = photos[from < 0 ? 0 : from + steps(photos)[event.key]];
    if (!to) return;
    event.preventDefault();
    link(to).focus();
  }
});
