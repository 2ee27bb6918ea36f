// Package engine lists the engines that the worker program has. Each is a folder
// below.
package engine
