// Package machinetest boots Oscine machines for tests: it builds the image of
// the tree under test once, starts machines that are gone when the test is
// over, waits for what they print or serve, and shows the end of their console
// when a test fails. It skips, with the reason, where no machine can run.
package machinetest
