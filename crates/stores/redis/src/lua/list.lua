-- Lists names. KEYS: the store, the index of names. ARGV from 5 on: the least, the end, how many.

answers = redis.call('ZRANGEBYLEX', KEYS[2], ARGV[5], ARGV[6], 'LIMIT', 0, ARGV[7])
return done()
