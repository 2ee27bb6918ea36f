// Package figure is what the guests of the isolation benchmark report and how
// it is judged: the ratios, the tables, the JSON file. It does no measuring.
package figure
