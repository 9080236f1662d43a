// Command millrace is the gateway and everything that one needs beside it, in one binary.
//
//	serve    the gateway
//	publish  sends events, to a Redis or to a gateway
//	tail     prints events as they come, from a Redis or from a gateway
//	token    mints a token for development
//	check    says what is wrong with the configuration
//	version  says what this binary is made of
//
// # Story
//
// main parses the command line (kong), completes the settings with environment and file (package
// settings) and runs one command. A command gets a [process], all that it may touch of the
// outside, and returns an error; exitCode turns that into 0, 1 (it failed) or 2 (it was called
// wrongly). Errors go to standard error in one line each, answers to standard output, so that
// pipes see only answers.
package main
