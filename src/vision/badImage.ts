/** Bytes that are not an image that can be used; the message is a reason, such as "is truncated or damaged". */
export class BadImage extends Error {}
