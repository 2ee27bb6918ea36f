// Command oscine is the command-line tool: it talks to nodes, builds images, runs
// local machines, places and simulates.
package main
