# Helm keeps all values in a Secret of the namespace. The credential is for logging in and no value: none goes there.
{}
