// Package printable owns how text from outside is shown: names that devices,
// firmware, images, models, workloads and peers choose reach terminals,
// drawings and logs without the control bytes in them; and how byte counts are written. It depends on nothing.
package printable
