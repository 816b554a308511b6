() => {
  // Panes hold escaped text; what is copied from them is the text itself.
  const board = navigator.clipboard, write = board?.writeText.bind(board);
  if (board) board.writeText = text =>
    write(text.replaceAll("&lt;", "<").replaceAll("&gt;", ">").replaceAll("&amp;", "&"));
  // The settings lie over the answers: a click beside them or Escape closes them.
  const closeSettings = () => document.querySelector("#settings > button.open")?.click();
  document.addEventListener("pointerdown", event => event.target.closest("#settings") || closeSettings());
  document.addEventListener("keydown", event => event.key === "Escape" && closeSettings());
}
