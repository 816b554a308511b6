() => {
  // Panes hold escaped text; what is copied from them is the text itself.
  const board = navigator.clipboard, write = board?.writeText.bind(board);
  if (board) board.writeText = text =>
    write(text.replaceAll("&lt;", "<").replaceAll("&gt;", ">").replaceAll("&amp;", "&"));
  // The settings lie over the answers: a click beside them or Escape closes them.
  const closeSettings = () => document.querySelector("#settings > button.open")?.click();
  document.addEventListener("pointerdown", event => event.target.closest("#settings") || closeSettings());
  document.addEventListener("keydown", event => event.key === "Escape" && closeSettings());

  // Conversations of this browser, the newest first: the server keeps none, and none goes back to it.
  const STORE = "tuneline-conversations", MOST = 20;
  const read = () => { try { return JSON.parse(localStorage.getItem(STORE)) ?? []; } catch { return []; } };
  function keep(list) {
    // A full store loses the oldest ones.
    for (let kept = list.slice(0, MOST); ; kept = kept.slice(0, -1))
      try { return localStorage.setItem(STORE, JSON.stringify(kept)); } catch { if (!kept.length) return; }
  }
  let current = null;
  function take() {
    const data = document.querySelector("#record [data-conversation]")?.dataset.conversation;
    if (!data) { current = null; return; }
    current ??= Date.now();
    keep([{ time: current, ...JSON.parse(data) }, ...read().filter(one => one.time !== current)]);
  }
  const make = (name, properties, ...children) => {
    const made = Object.assign(document.createElement(name), properties);
    made.append(...children);
    return made;
  };
  const say = (zh, en) => [make("span", { lang: "zh-Hans", textContent: zh }), make("span", { lang: "en", textContent: en })];
  const chinese = () => document.documentElement.lang.startsWith("zh");
  const asked = one => one.columns[0].messages.find(message => message.role === "user")?.content ?? "";
  const speaker = (column, role) => role === "assistant" ? column.model[chinese() ? "zh" : "en"]
    : { user: ["问", "Question"], tool: ["工具结果", "What the tool gave"] }[role]?.[chinese() ? 0 : 1] ?? role;
  function save(one, kind) {
    const markdown = () => [`# ${asked(one).split("\n")[0]}`, ...one.columns.flatMap(column => [
      `## ${column.model[chinese() ? "zh" : "en"]}`,
      ...column.messages.map(message => `**${speaker(column, message.role)}**\n\n${message.content.replace(/^/gm, "> ")}`)])].join("\n\n") + "\n";
    // A line for each model, as data/raw takes dialogues.
    const lines = () => one.columns.map(column => JSON.stringify({ messages: [
      ...(one.system ? [{ role: "system", content: one.system }] : []), ...column.messages], model: column.model.en }) + "\n").join("");
    const url = URL.createObjectURL(new Blob([kind === "md" ? markdown() : lines()], { type: "text/plain" }));
    make("a", { href: url, download: `tuneline-${new Date(one.time).toISOString().slice(0, 19).replaceAll(":", "-")}.${kind}` }).click();
    setTimeout(() => URL.revokeObjectURL(url), 1000);
  }
  function again(one) {
    const box = document.querySelector("#question textarea");
    box.value = asked(one);
    box.dispatchEvent(new Event("input", { bubbles: true }));
    dialog.close();
    box.focus();
  }
  const button = (words, act) => {
    const made = make("button", { type: "button" }, ...words);
    made.addEventListener("click", act);
    return made;
  };
  const part = (column, message) => make("div", { className: `said ${message.role}` },
    make("b", { textContent: speaker(column, message.role) }), make("p", { textContent: message.content }));
  const entry = (one, place) => make("details", { open: place === 0 },
    make("summary", {}, asked(one).replaceAll("\n", " "), make("time", { textContent: new Date(one.time).toLocaleString(chinese() ? "zh-CN" : "en-GB") })),
    make("div", { className: "actions" }, button(say("再问一次", "Ask again"), () => again(one)),
      button(say("存为 Markdown", "Save as Markdown"), () => save(one, "md")), button(say("存为 JSON", "Save as JSON"), () => save(one, "jsonl")),
      button(say("删除", "Delete"), () => { keep(read().filter(other => other.time !== one.time)); show(); })),
    make("div", { className: "pair" }, ...one.columns.map(column => make("div", {}, ...column.messages.map(message => part(column, message))))));
  const list = make("div", { className: "list" });
  const dialog = make("dialog", { id: "kept", ariaLabel: "History" },
    make("div", { className: "top" }, make("h2", {}, ...say("历史对话", "History")), button(say("关闭", "Close"), () => dialog.close())),
    make("p", {}, ...say(`最近 ${MOST} 次对话，只保存在此浏览器中。`, `The last ${MOST} conversations, kept in this browser only.`)), list);
  function show() {
    const kept = read();
    list.replaceChildren(...kept.map(entry));
    if (kept.length) list.append(button(say("全部删除", "Delete all"), () => { keep([]); show(); }));
    else list.append(make("p", {}, ...say("还没有对话。", "None yet.")));
  }
  document.querySelector(".gradio-container").append(dialog);
  document.addEventListener("click", event => {
    if (event.target.closest("#conversations")) { show(); dialog.ariaLabel = chinese() ? "历史对话" : "History"; dialog.showModal(); }
    if (event.target === dialog) dialog.close();
  });
  // The pane's place is made by Gradio, and made again.
  new MutationObserver(changes => changes.some(({ target }) => target.closest?.("#record") || target.querySelector?.(":scope > #record")) && take())
    .observe(document.body, { childList: true, subtree: true, attributes: true, attributeFilter: ["data-conversation"] });
}
