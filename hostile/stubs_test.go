package hostile

var shutdownCases []abuse
