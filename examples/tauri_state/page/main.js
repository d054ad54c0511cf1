const { invoke } = window.__TAURI__.core;
const find = (id) => document.getElementById(id);

// Each returns the text of the answer.
const actions = {
  async check(id) {
    return `${id}: ${(await invoke("check", { id })) ? "seen" : "not seen"}`;
  },
  async mark(id) {
    return `${id}: ${await invoke("mark", { id })}`;
  },
  async list() {
    const entries = await invoke("list");
    find("entries").replaceChildren();
    for (const { id, id_hex, last_seen, duplicates } of entries) {
      const row = find("entries").insertRow();
      // An id that is no UTF-8 comes in hexadecimal digits.
      for (const text of [id ?? id_hex, last_seen, duplicates]) {
        row.insertCell().textContent = text;
      }
    }
    return `${entries.length} entries`;
  },
};

for (const [name, act] of Object.entries(actions)) {
  find(name).onclick = async () => {
    try {
      find("answer").textContent = await act(find("id").value);
    } catch (error) {
      find("answer").textContent = `error: ${error}`;
    }
  };
}
