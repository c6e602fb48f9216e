// The dialogs that ask something.

/** Opens a dialog and returns what its form was sent with; "" where it was closed otherwise. */
function answer(dialog) {
  return new Promise((resolve) => {
    dialog.returnValue = "";
    dialog.addEventListener("close", () => resolve(dialog.returnValue), { once: true });
    dialog.showModal();
  });
}

/** Asks for the server's key. Returns null where the person gives none. `again` says that one was refused. */
export async function askForKey(again) {
  const dialog = document.getElementById("key"), input = document.getElementById("key-input");
  document.getElementById("key-wrong").hidden = !again;
  document.getElementById("key-cancel").onclick = () => dialog.close("");
  input.value = "";
  return await answer(dialog) === "yes" ? input.value : null;
}

/** Asks whether something is to be deleted. */
export async function confirmDeletion(question) {
  document.getElementById("question-words").textContent = question;
  return await answer(document.getElementById("question")) === "yes";
}
