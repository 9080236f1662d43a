package hostile

var redisCases, resourceCases, shutdownCases []abuse
