//go:build race

package main

// raceDetector tells whether this test has the race detector: then the server it builds has it, too.
const raceDetector = true
