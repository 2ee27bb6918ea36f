// Package loadgen has the rules of MLPerf Inference's load generator: its
// scenarios, what makes a run valid, early stopping, the search for the peak
// rate, and its log files. It owns settings and verdicts, and sends nothing:
// internal/bench/serving does. It is written from the published rules
// (mlcommons/inference_policies) and from what the official LoadGen prints; a
// test compares its verdicts with the official one's.
package loadgen
