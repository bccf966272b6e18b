-- ARGV: none. Returns the present era.
return era()
