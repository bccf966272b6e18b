-- ARGV: clock, then three for each entry that looks stale: topic, state, message id.
for i = 2, #ARGV, 3 do
  correct(ARGV[i], tonumber(ARGV[i + 1]), ARGV[i + 2])
end
return 0
