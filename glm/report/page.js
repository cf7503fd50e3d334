// The language of the page, and the search in its rows.
const root = document.documentElement;
const setLanguage = (language) => {
  root.lang = language;
  for (const button of document.querySelectorAll("[data-language]")) {
    button.setAttribute("aria-pressed", String(button.dataset.language === language));
  }
};
for (const button of document.querySelectorAll("[data-language]")) {
  button.addEventListener("click", () => setLanguage(button.dataset.language));
}
setLanguage(navigator.language.startsWith("zh") ? "zh" : "en");

const openTarget = () => document.getElementById(location.hash.slice(1))?.closest("details")?.setAttribute("open", "");
addEventListener("hashchange", openTarget);
openTarget();

const field = document.getElementById("search");
if (field) {
  const rows = [...document.querySelectorAll("#rows tbody tr")].map((row) => [row, row.textContent.toLowerCase()]);
  field.addEventListener("input", () => {
    const words = field.value.toLowerCase().split(/\s+/).filter(Boolean);
    let count = 0;
    for (const [row, text] of rows) {
      row.hidden = !words.every((word) => text.includes(word));
      count += !row.hidden;
    }
    document.getElementById("found").textContent = `${count} / ${rows.length}`;
  });
}
