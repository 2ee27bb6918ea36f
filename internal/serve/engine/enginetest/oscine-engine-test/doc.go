// Command oscine-engine-test is the program of the test engine, as a pack would carry it.
package main
