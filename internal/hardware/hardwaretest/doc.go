// Package hardwaretest writes the sysfs and procfs trees of described
// machines, so that tests cover servers and boards that are not at hand. It
// depends on nothing and writes only what a kernel would show.
package hardwaretest
