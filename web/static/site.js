/* Small comforts of all pages: buttons that copy a command, figures that keep up. */
for (const button of document.querySelectorAll("button.copy")) {
  if (!navigator.clipboard) break; // only where a page came safely
  const label = button.querySelector("span");
  const name = label.textContent;
  button.hidden = false;
  button.addEventListener("click", async () => {
    await navigator.clipboard.writeText(button.parentElement.querySelector("code").textContent);
    label.textContent = button.dataset.copied;
    setTimeout(() => (label.textContent = name), 2000);
  });
}

/* Figures of the first page, while somebody looks at it. */
const figures = document.querySelectorAll("[data-live]");
const EVERY_MS = 20_000;

async function renew() {
  if (document.hidden) return;
  const answer = await fetch("/v1/stats?hours=0");
  if (!answer.ok) return;
  const { now } = await answer.json();
  for (const figure of figures) {
    const number = now[figure.dataset.live];
    if (number !== undefined) figure.textContent = new Intl.NumberFormat(document.documentElement.lang).format(number);
  }
}

/* Is the mirror written still? Said at the top of the page, as it is when a page is made. */
const state = document.querySelector("[data-mirror]");

async function look() {
  if (document.hidden) return;
  const answer = await fetch("/readyz");
  const still = answer.status === 503 && (await answer.json()).status === "stale";
  const told = state.querySelector("p");
  state.hidden = !still;
  if (still && !told.textContent) told.textContent = state.dataset.mirror;
  document.body.toggleAttribute("data-stale", still);
}

if (state) setInterval(() => look().catch(() => {}), EVERY_MS);
if (figures.length) setInterval(() => renew().catch(() => {}), EVERY_MS); // away for a while is no trouble
