// Package sim replays traces of real clusters through placement policies and
// measures what they waste. It owns the reading of openb traces, the arrival
// protocol of "Beware of Fragmentation" (USENIX ATC'23), the policies that the
// paper compares, and tables and plots of the results; the engine that places
// is internal/place.
package sim
