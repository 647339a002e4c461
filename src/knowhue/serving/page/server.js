// Requests to the server's API.

export class Refused extends Error {
  constructor(status, message, retryAfter) {
    super(message);
    Object.assign(this, { status, retryAfter });
  }
}

// Return the server's answer, read completely with the method `read` of Response; every failure is thrown as `Refused`.
export async function request(address, read, init = {}) {
  const answer = await fetch(address, init).catch(() => {
    throw new Refused(0, "The server cannot be reached. Is it still running?");
  });
  if (answer.ok) {
    return answer[read]().catch(() => {
      throw new Refused(0, "The answer of the server broke off. Try again.");
    });
  }
  const { error } = await answer.json().catch(() => ({ error: `The server answered ${answer.status}.` }));
  throw new Refused(answer.status, error, Number(answer.headers.get("retry-after")));
}

export function post(path, file, options, accept = "application/json", reference = null) {
  const init = { method: "POST", body: file, headers: { "content-type": "image/*", accept } };
  if (reference) {
    init.body = new FormData();
    init.body.append("image", file);
    init.body.append("reference", reference);
    delete init.headers["content-type"]; // the browser sets it with the form's boundary
  }
  return request(`${path}?${new URLSearchParams(options)}`, accept === "application/json" ? "json" : "blob", init);
}
