// Package bounded reads what others wrote, up to a bound. It refuses what is
// larger: a reader never gets the beginning of a file for all of it. It also bounds
// how long what comes from others may stall, how fast it may come, and how often it is asked
// for again. It depends on the standard library only, without net, because PID 1 contains it.
package bounded
