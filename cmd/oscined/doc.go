// Command oscined is the node daemon: on the image it runs under init and
// owns the machine, with --hosted it runs on any other Linux. It may be restarted at any time without
// stopping what runs on the node.
package main
