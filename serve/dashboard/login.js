// The form for the access token, shown when the API requires one.

import { logIn, logOut, whenUnauthorized } from "./api.js";
import { setNotice } from "./element.js";

const MARK = "storeguard-signed-in"; // a page cannot read the cookie itself

export class Login {
  /** @param onLogin called after a sign-in. */
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
    whenUnauthorized(() => this.show());
  }

  /** Shows the form, once. */
  show() {
    if (this.dialog.open) return;
    for (const other of document.querySelectorAll("dialog[open]")) other.close();
    setNotice(this.fault, "");
    this.dialog.showModal();
  }

  async submit(onLogin) {
    const field = this.form.elements.token;
    try {
      await logIn(field.value.trim());
    } catch (error) {
      setNotice(this.fault, error.status === 401 ? "This is not the access token." : `${error.message}.`);
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
