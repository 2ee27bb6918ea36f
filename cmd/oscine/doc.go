// Command oscine is the person's tool: it talks to nodes, builds images, runs
// local machines, places and simulates.
package main
