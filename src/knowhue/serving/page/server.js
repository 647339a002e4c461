// The server's own API: what is asked of it, and what it answers.

export class Refused extends Error {
  constructor(status, message, retryAfter) {
    super(message);
    Object.assign(this, { status, retryAfter });
  }
}

// What the server answers, read to its end. Raises `Refused`, and nothing else, whatever goes wrong.
export async function fetched(address, read, request = {}) {
  const answer = await fetch(address, request).catch(() => {
    throw new Refused(0, "The server cannot be reached.");
  });
  if (answer.ok) {
    return answer[read]().catch(() => {
      throw new Refused(0, "The answer broke off.");
    });
  }
  const { error } = await answer.json().catch(() => ({ error: `The server answered ${answer.status}.` }));
  throw new Refused(answer.status, error, Number(answer.headers.get("retry-after")));
}

export function post(path, file, options, accept = "application/json", reference = null) {
  const request = { method: "POST", body: file, headers: { "content-type": "image/*", accept } };
  if (reference) {
    request.body = new FormData();
    request.body.append("image", file);
    request.body.append("reference", reference);
    delete request.headers["content-type"]; // the browser's own, which names the form's boundary
  }
  return fetched(`${path}?${new URLSearchParams(options)}`, accept === "application/json" ? "json" : "blob", request);
}
