// Package render shows the map of a machine to people: as a tree or a picture
// of load in a terminal, as a matrix of how near devices are, as a graph for
// Graphviz and as a drawing. It probes nothing itself and depends on internal/hardware alone.
package render
