// Fetches what changed, and leaves open what was opened. A run that is gone or a server that stopped is said, not hidden.
"use strict";
let tag = "";
async function refresh() {
  let trouble = "";
  try {
    const answer = await fetch("/main", { headers: tag ? { "If-None-Match": tag } : {}, cache: "no-store" });
    if (answer.status === 200) {
      const main = document.querySelector("main");
      const open = [...main.querySelectorAll("details")].map((each) => each.open);
      const html = await answer.text();
      main.innerHTML = html;
      [...main.querySelectorAll("details")].forEach((each, i) => { each.open = Boolean(open[i]); });
      tag = answer.headers.get("ETag") || "";
    } else if (answer.status !== 304) {
      trouble = await answer.text();
    }
  } catch (error) {
    trouble = "ptr-fast watch does not answer any more.";
  }
  let note = document.getElementById("trouble");
  if (trouble && !note) {
    note = document.createElement("p");
    note.id = "trouble";
    note.className = "note";
    note.setAttribute("role", "status");
    document.querySelector("main").prepend(note);
  }
  if (note) trouble ? (note.textContent = trouble) : note.remove();
  setTimeout(refresh, 2000);
}
refresh();
