// Package demo owns the demonstration from source to answer: it builds what is
// missing, boots a machine, has it serve the digit reader, sends it pictures
// that it draws from fonts the model never saw, and reports what it measured.
// It decides nothing: every step is what a person would do with the commands.
package demo
