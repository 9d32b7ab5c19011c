// Carries the token of a mail's link back to the service. It stands behind "#", which browsers send
// to no server, and leaves the address bar and the history at once.
const form = document.querySelector("form");
const button = form.querySelector("button");
const told = document.getElementById("told");
const [password, repeated] = form.querySelectorAll("input[type=password]");
const token = new URLSearchParams(location.hash.slice(1)).get("token");

function tell(text, kind) {
  told.textContent = text;
  told.className = kind;
  told.hidden = false;
  told.focus();
}

async function send() {
  const answer = await fetch(form.dataset.path, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(password ? { token, new_password: password.value } : { token }),
  });
  if (answer.ok) {
    form.remove();
    return tell(form.dataset.done, "done");
  }
  const problem = await answer.json();
  const errors = problem.errors ?? [];
  if (errors.some((error) => error.pointer === "/token")) {
    form.remove();
    return tell(form.dataset.void, "failed");
  }
  const details = errors.map(({ detail }) => detail.replace(/^(?=must |is )/, "The password "));
  return tell(details.join(" ") || problem.detail, "failed");
}

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  button.disabled = true;
  try {
    await send();
  } catch {
    tell("Pricebook does not answer just now. Try again.", "failed");
  } finally {
    button.disabled = false;
  }
});

if (password) {
  const compare = () =>
    repeated.setCustomValidity(password.value === repeated.value ? "" : "The two are not the same.");
  password.addEventListener("input", compare);
  repeated.addEventListener("input", compare);
  document.getElementById("shown").addEventListener("change", (event) => {
    password.type = repeated.type = event.target.checked ? "text" : "password";
  });
}

// Another link, opened in this very tab, does not load the page anew by itself.
window.addEventListener("hashchange", () => location.reload());
history.replaceState(null, "", location.pathname);

if (token) {
  form.hidden = false;
} else {
  tell("Open this page by the link in the mail.", "failed");
}
