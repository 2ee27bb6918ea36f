// Package hardwaretest writes the sysfs and procfs trees of described
// machines, so that tests meet servers and boards that nobody has at hand. It
// depends on nothing and writes only what a kernel would show.
package hardwaretest
