// Command inside is the init of the guests that the isolation benchmark boots:
// it measures every configuration and prints one line of JSON for each.
package main
