// Requests to the server's API.

export class Refused extends Error {
  constructor(status, message, retryAfter) {
    super(message);
    Object.assign(this, { status, retryAfter });
  }
}

// Return the server's answer, read to its end; every failure is thrown as `Refused`.
export async function fetched(address, read, request = {}) {
  const answer = await fetch(address, request).catch(() => {
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
  const request = { method: "POST", body: file, headers: { "content-type": "image/*", accept } };
  if (reference) {
    request.body = new FormData();
    request.body.append("image", file);
    request.body.append("reference", reference);
    delete request.headers["content-type"]; // the browser sets it with the form's boundary
  }
  return fetched(`${path}?${new URLSearchParams(options)}`, accept === "application/json" ? "json" : "blob", request);
}
