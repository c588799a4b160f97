// Asks for the access token when the API wants one.

import { logIn, logOut, whenUnauthorized } from "./api.js";
import { tell } from "./element.js";

const MARK = "storeguard-signed-in"; // the cookie itself is out of a page's reach

export class Login {
  /** @param onLogin called when somebody has signed in. */
  constructor({ onLogin }) {
    this.dialog = document.getElementById("login");
    this.form = document.getElementById("login-form");
    this.fault = document.getElementById("login-fault");
    this.out = document.getElementById("sign-out");
    this.out.hidden = localStorage.getItem(MARK) === null;
    this.dialog.addEventListener("cancel", (event) => event.preventDefault());
    this.form.addEventListener("submit", async (event) => {
      event.preventDefault();
      await this.submit(onLogin);
    });
    this.out.addEventListener("click", async () => {
      await logOut().catch(() => {});
      localStorage.removeItem(MARK);
      location.reload();
    });
    whenUnauthorized(() => this.ask());
  }

  /** Shows the form, once. */
  ask() {
    if (this.dialog.open) return;
    for (const other of document.querySelectorAll("dialog[open]")) other.close();
    tell(this.fault, "");
    this.dialog.showModal();
  }

  async submit(onLogin) {
    const field = this.form.elements.token;
    try {
      await logIn(field.value.trim());
    } catch (error) {
      tell(this.fault, error.status === 401 ? "This is not the access token." : `${error.message}.`);
      field.select();
      return;
    }
    field.value = "";
    localStorage.setItem(MARK, "yes");
    this.out.hidden = false;
    this.dialog.close();
    onLogin();
  }
}
