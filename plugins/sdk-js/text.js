// Text and bytes, in UTF-8: the engine has no TextEncoder and no TextDecoder.

/** Bytes as text. Throws where they are not UTF-8. */
export function text(bytes) {
    let latin = "";
    for (let at = 0; at < bytes.length; at += CHARACTERS_AT_ONCE) {
        latin += String.fromCharCode.apply(null, bytes.subarray(at, at + CHARACTERS_AT_ONCE));
    }
    // A regular expression looks at text quicker than a loop, as it is not interpreted.
    return ASCII.test(latin) ? latin : decodeURIComponent(escape(latin));
}

/** Text as bytes, in UTF-8; bytes and null as they are. */
export function bytes(text) {
    if (text === null || text instanceof Uint8Array) return text;
    if (typeof text !== "string") throw new TypeError(`a key, a value or a header is text, a Uint8Array or null, and not ${typeof text}`);
    const latin = ASCII.test(text) ? text : unescape(encodeURIComponent(text));
    const bytes = new Uint8Array(latin.length);
    for (let at = 0; at < latin.length; at++) bytes[at] = latin.charCodeAt(at);
    return bytes;
}

const ASCII = /^[\x00-\x7f]*$/;

/** More arguments than this may be too many for a call. */
const CHARACTERS_AT_ONCE = 1024;
