package image

// Epoch is the time, in seconds since 1970, of every file on the root: fixed,
// so that two builds are equal, and late enough for a machine without a clock
// to start from it (2026-11-01).
const Epoch = 1793491200
