// Moments in the zone of the browser; the exact value stays in the title.
"use strict";

const CLOCK = { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" };
const DAY = { day: "numeric", month: "short" };
const OF_TODAY = new Intl.DateTimeFormat(undefined, CLOCK);
const OF_THIS_YEAR = new Intl.DateTimeFormat(undefined, { ...DAY, ...CLOCK });
const OF_ANY_DAY = new Intl.DateTimeFormat(undefined, { ...DAY, year: "numeric", ...CLOCK });

function wording(moment) {
  const now = new Date();
  if (moment.toDateString() === now.toDateString()) return OF_TODAY.format(moment);
  return (moment.getFullYear() === now.getFullYear() ? OF_THIS_YEAR : OF_ANY_DAY).format(moment);
}

function localise(root) {
  for (const element of root.querySelectorAll("time[datetime]")) {
    element.textContent = wording(new Date(element.dateTime));
  }
}

// An <input data-utc> holds UTC in the page and in the URL, and local time before the eyes.
function pad(number) {
  return String(number).padStart(2, "0");
}

function localInput(moment) {
  const day = [moment.getFullYear(), pad(moment.getMonth() + 1), pad(moment.getDate())].join("-");
  return `${day}T${pad(moment.getHours())}:${pad(moment.getMinutes())}`;
}

function localiseInputs() {
  for (const input of document.querySelectorAll("input[data-utc]")) {
    if (input.value) input.value = localInput(new Date(`${input.value}Z`));
    input.form.addEventListener("formdata", (event) => {
      if (input.value) event.formData.set(input.name, new Date(input.value).toISOString());
    });
  }
}

document.addEventListener("htmx:afterSwap", () => localise(document));
document.addEventListener("DOMContentLoaded", () => {
  localise(document);
  localiseInputs();
});
