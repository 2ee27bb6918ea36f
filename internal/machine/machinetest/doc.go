// Package machinetest gives tests Oscine machines: it builds the image of the
// tree under test once, boots machines or resumes those that an earlier test
// saved, ends them when the test is over or its program dies, waits for what they print or serve, and shows the end of their console
// when a test fails. It skips, with the reason, if no machine can run.
package machinetest
