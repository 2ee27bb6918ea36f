// Package trial chooses between engines that read the same model by running them:
// it has each worker load the model, runs it on made-up inputs for a moment, and
// compares speed and outputs. It knows no engine, pack or container.
package trial
